"""The paper's claims on real models: from results folders to the tables of docs/REPRODUCTION.md."""
