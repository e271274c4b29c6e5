"""What train_queue.py is made of: the file, the runs in their state folder, clones, child processes, collecting."""
