package main

import (
	"math/rand/v2"

	"stampede/engine"
)

// demoShelf is a category: what stands on it, and how many of each there are.
type demoShelf struct {
	stockMin, stockMax int64 // units
	goods              []demoGood
}

type demoGood struct {
	name  string
	price int64 // minor units
}

// demoProducts is the catalogue, always the same. Cheap things there are plenty of; what a flash sale is about is
// scarce.
func demoProducts() []engine.Product {
	stocks := rand.New(rand.NewPCG(demoSeed, 1)) //nolint:gosec // repeatable on purpose
	var products []engine.Product
	for _, shelf := range demoShelves {
		for _, good := range shelf.goods {
			stock := shelf.stockMin + stocks.Int64N(shelf.stockMax-shelf.stockMin+1)
			products = append(products, engine.Product{Name: good.name, Price: good.price, Stock: stock})
		}
	}
	return products
}

const demoSeed = 2026

var demoShelves = []demoShelf{
	{stockMin: 400, stockMax: 1200, goods: []demoGood{ // coffee and tea
		{"Ethiopia Guji whole bean coffee, 250 g", 14_50},
		{"Colombia Huila whole bean coffee, 1 kg", 39_90},
		{"Decaf espresso blend, 500 g", 21_00},
		{"Ceramic pour-over dripper", 24_90},
		{"Paper filters, pack of 100", 6_50},
		{"Burr hand grinder", 79_00},
		{"Gooseneck kettle, 0.9 l", 64_00},
		{"French press, 8 cups", 34_90},
		{"Sencha green tea, 100 g", 12_80},
		{"Earl Grey loose leaf tin, 125 g", 11_20},
	}},
	{stockMin: 150, stockMax: 600, goods: []demoGood{ // kitchen
		{"Chef's knife, 20 cm", 89_00},
		{"Cast iron skillet, 26 cm", 44_90},
		{"End-grain walnut cutting board", 119_00},
		{"Stainless mixing bowls, set of 5", 38_50},
		{"Digital kitchen scale", 27_90},
		{"Silicone spatula set", 16_40},
		{"Enameled Dutch oven, 5 l", 149_00},
		{"Stoneware dinner plates, set of 4", 52_00},
		{"Linen tea towels, set of 3", 22_50},
		{"Glass storage jars, set of 6", 29_80},
	}},
	{stockMin: 80, stockMax: 300, goods: []demoGood{ // sound
		{"Over-ear noise-canceling headphones", 249_00},
		{"True wireless earbuds", 119_00},
		{"Portable Bluetooth speaker", 89_90},
		{"Bookshelf speakers, pair", 329_00},
		{"Belt-drive turntable", 279_00},
		{"USB condenser microphone", 99_00},
		{"Studio monitor stand, pair", 59_00},
		{"Braided 3.5 mm audio cable, 2 m", 12_90},
		{"Headphone amplifier with DAC", 159_00},
		{"Record cleaning kit", 24_00},
	}},
	{stockMin: 100, stockMax: 500, goods: []demoGood{ // desk
		{"Mechanical keyboard, tenkeyless", 139_00},
		{"Vertical ergonomic mouse", 54_90},
		{"27-inch 4K monitor", 379_00},
		{"Monitor arm, gas spring", 94_50},
		{"USB-C docking station, 11 ports", 129_00},
		{"65 W USB-C charger", 39_00},
		{"Wool felt desk mat", 34_00},
		{"LED desk lamp with dimmer", 58_00},
		{"1 TB portable SSD", 109_00},
		{"Adjustable laptop stand", 42_90},
	}},
	{stockMin: 60, stockMax: 240, goods: []demoGood{ // outdoors
		{"Two-person trekking tent", 289_00},
		{"Down sleeping bag, -5 °C", 219_00},
		{"Self-inflating sleeping mat", 84_90},
		{"45 l hiking backpack", 134_00},
		{"Folding trekking poles, pair", 69_00},
		{"Titanium camping mug", 26_50},
		{"Gas canister stove", 44_00},
		{"Head torch, 400 lumens", 36_90},
		{"Insulated water bottle, 1 l", 32_00},
		{"Dry bag, 20 l", 19_90},
	}},
	{stockMin: 120, stockMax: 480, goods: []demoGood{ // clothing
		{"Merino crew neck base layer", 64_00},
		{"Organic cotton T-shirt, navy", 24_90},
		{"Selvedge denim jeans, straight", 119_00},
		{"Waterproof shell jacket", 189_00},
		{"Recycled fleece pullover", 74_50},
		{"Wool beanie, charcoal", 22_00},
		{"Leather belt, cognac", 46_00},
		{"Trail running socks, 3 pairs", 27_90},
		{"Linen shirt, white", 58_00},
		{"Canvas tote bag", 15_00},
	}},
	{stockMin: 100, stockMax: 400, goods: []demoGood{ // sport
		{"Carbon plate running shoes", 199_00},
		{"Yoga mat, natural rubber", 62_00},
		{"Adjustable dumbbell, 24 kg", 169_00},
		{"Kettlebell, 16 kg", 54_00},
		{"Resistance bands, set of 5", 21_90},
		{"Foam roller, 45 cm", 28_50},
		{"Road bike helmet", 98_00},
		{"Rear bike light, USB-C", 24_50},
		{"Swim goggles, mirrored", 23_00},
		{"Climbing chalk bag", 18_90},
	}},
	{stockMin: 200, stockMax: 800, goods: []demoGood{ // books and paper
		{"The Art of Bread, hardcover", 34_00},
		{"A Field Guide to European Birds", 27_50},
		{"Night Trains of Europe, paperback", 16_90},
		{"Dotted notebook, A5", 14_00},
		{"Fountain pen, fine nib", 38_00},
		{"Bottled ink, midnight blue, 50 ml", 17_50},
		{"Mechanical pencil, 0.5 mm", 9_80},
		{"Wall calendar, letterpress", 24_00},
		{"World map poster, 100 x 70 cm", 29_00},
		{"Watercolor set, 24 half pans", 46_50},
	}},
	{stockMin: 80, stockMax: 320, goods: []demoGood{ // toys and games
		{"Cooperative board game: Lighthouse", 44_90},
		{"Wooden train set, 60 pieces", 59_00},
		{"1,000-piece puzzle: Harbor at Dawn", 21_50},
		{"Building bricks, classic box", 39_00},
		{"Tournament chess set", 54_00},
		{"Card game: Nine Lives", 14_90},
		{"Beginner's telescope, 70 mm", 129_00},
		{"Juggling balls, set of 3", 17_00},
		{"Remote control stunt car", 48_50},
		{"Plush otter, 30 cm", 22_90},
	}},
	{stockMin: 20, stockMax: 100, goods: []demoGood{ // what people queue for
		{"Limited edition sneakers: Stampede One", 179_00},
		{"Handheld game console", 349_00},
		{"Instant camera, anniversary edition", 159_00},
		{"Graphics card, 16 GB", 599_00},
		{"Mirrorless camera body", 899_00},
		{"Signed vinyl: Live at the Quay", 64_00},
		{"Festival weekend pass", 229_00},
		{"Smart watch, titanium", 449_00},
		{"Espresso machine, dual boiler", 1_249_00},
		{"Folding electric scooter", 479_00},
	}},
}
