"""What `make doctor` checks: the machine, the Docker engine and the release's own parts."""
