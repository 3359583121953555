"""What a search or a training run will take, from closed forms, before money is spent."""
