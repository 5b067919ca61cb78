"""What runs: tasks, their graph, and the driver that feeds it."""
