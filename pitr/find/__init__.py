"""What happened to the data: transactions that dropped, emptied or changed tables, from the indexes of archived WAL."""
