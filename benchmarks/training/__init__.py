"""What training costs, and what it finds: beside LibMTL, by steps, and with a thousand tasks."""
