"""What serving costs, as ratios to what somebody would do instead."""
