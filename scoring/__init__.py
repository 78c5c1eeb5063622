"""What runs inside the scoring service: the contract, the model and the HTTP server around them."""
