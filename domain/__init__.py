"""Rules of workflow execution. Pure: no I/O, no clock, no random, no ids."""
