"""The only outbound sockets: streams, HTTP, and the budgets that both obey."""
