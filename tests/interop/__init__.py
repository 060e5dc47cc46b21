"""Other people's OKX clients against our simulator: `make interop`. Not part of pytest."""
