"""What ``coterie bench`` measures, how, and how it is shown."""
