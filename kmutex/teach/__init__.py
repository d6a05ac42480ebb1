"""What teaches the contract: the page on which one schedules the model by hand."""
