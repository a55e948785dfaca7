"""What klinket has beyond the contract, as a second schema at EXTENSION_PATH: same rules, same ids."""
