"""What the chapters share: figures, explorables, claims, exercises and their checkers."""
