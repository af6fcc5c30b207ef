"""The command line ``coterie``; each command imports its package only when it is called."""
