"""What `python -m benchmarks.chaos` does to the programs: kills, damage, full disks, clocks, suspension, no home."""
