"""Word lists that the synthetic families share. All made up or common words."""

NAMES = (
    "Anna Ben Carla David Elena Felix Greta Hugo Ivy Jonas Kira Leo Mia Noah Olga Paul Rosa Sam "
    "Tara Uma Victor Wendy Yara Zoe"
).split()

ITEMS = (
    "apples pears stamps marbles books pencils shells cards buttons candles cookies tickets "
    "stickers coins plums eggs flowers bottles"
).split()

SHOPS = ["market", "corner shop", "bakery", "farm shop", "fair", "toy shop", "harbour store"]

TOWNS = (
    "Millford Ashby Kelton Westbay Oakham Redhill Sandor Linwood Harrow Brill Marsh Eastwick "
    "Norton Pembry Clifton Dunmore"
).split()

JOBS = (
    "baker teacher nurse pilot farmer painter doctor sailor tailor cook driver singer miner "
    "gardener judge weaver potter".split()
)

PETS = "cat dog parrot rabbit goat turtle horse hamster duck snake pony mouse".split()

HOBBIES = (
    "chess fishing dancing painting hiking sewing reading cycling rowing skating archery juggling"
).split()

FOODS = "soup pizza rice pasta salad curry bread cheese stew pancakes noodles beans".split()

INSTRUMENTS = "piano violin flute drums guitar harp trumpet cello organ banjo".split()

COLOURS = "red blue green yellow black white brown purple orange grey".split()
