"""What a server tells of itself: metrics, statistics, log lines and spans."""
