"""Does. brokapi's own imitation of ALOR, for our dialect to talk to: `alor_dialect` is run in our environment."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from uuid import UUID

from brokapi.testing import mock_alor

from tests.interop.steps import OUR_PYTHON


async def serve() -> int:
    async with await mock_alor() as venue:
        command = (os.environ[OUR_PYTHON], "-m", "tests.interop.alor_dialect", json.dumps(venue.settings))
        running = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        assert running.stdout is not None
        async for line in running.stdout:
            told = json.loads(line)
            if "fill" in told:
                venue.fill(UUID(told["fill"]), qty=told["quantity"], price=told["price"])
            else:
                print(json.dumps(told), flush=True)
        return await running.wait()


if __name__ == "__main__":
    sys.exit(asyncio.run(serve()))
