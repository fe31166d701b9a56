"""What evaluations found: read with suspicion (a box may have written it), compared, and put into tables. No I/O."""
