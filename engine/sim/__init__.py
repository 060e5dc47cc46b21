"""Does. Venues in a box: a simulated market, a venue's front served over real sockets, faults on command."""
