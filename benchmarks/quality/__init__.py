"""What the scripts about the quality of crystals share: crystals kept batch by batch, and how they are evaluated."""
