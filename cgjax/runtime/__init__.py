"""What a run needs of the machine: processes, devices, files, logs. Knows nothing of clusters."""
