"""What the speed scripts of this folder share: cases, counting, timing, one measurement, records of it."""
