"""The local control door: what the CLI and the desk ask a running engine to do, over a Unix socket (mode 0600)."""
