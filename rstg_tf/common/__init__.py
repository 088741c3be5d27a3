"""What every other room uses: errors, choices of settings, files that appear whole, ends of programs, devices."""
