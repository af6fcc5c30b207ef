"""How near the router comes to what the machine can do, and what its time grows with."""
