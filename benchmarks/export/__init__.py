"""What an export costs, and what its bundle weighs."""
