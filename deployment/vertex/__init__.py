"""What only the Vertex AI stack needs: Google's clients, machines, jobs, schedules, costs."""
