"""Take cells through select, edit, evaluate, restore, record: here, or on workers."""
