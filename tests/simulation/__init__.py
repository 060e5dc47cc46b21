"""The whole engine on virtual time against the real front, no sockets: everything that happens follows from a seed."""
