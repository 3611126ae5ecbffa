"""What there is: backups, the moments that can be reached, and whether that is what the policy asks for."""
