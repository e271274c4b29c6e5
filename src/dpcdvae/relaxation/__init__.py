"""From a generated crystal to the minimum it lies closest to, under pressure. Loads no torch of its own."""
