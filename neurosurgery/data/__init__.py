"""What a run reads: calibration sets, samples to train on, programs, data sets of the hub."""
