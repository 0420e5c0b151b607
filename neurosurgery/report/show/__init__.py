"""Work out what each figure, table and sentence shows. Nothing is drawn here."""
