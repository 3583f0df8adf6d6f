"""What people are told: Slack through ZenML's alerter, or any receiver of JSON."""
