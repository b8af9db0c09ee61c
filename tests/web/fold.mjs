// Folds frames as the page does: stdin has them, stdout what it would show, as JSON.
import { readFileSync } from "node:fs";

const [folder] = process.argv.slice(2);
const { View } = await import(`file://${folder}/task/fold.js`);
const view = new View("t");
for (const frame of JSON.parse(readFileSync(0, "utf8"))) view.take(frame);
const { state, plan, total, published, turns, caughtUp } = view;
console.log(JSON.stringify({ state, plan, total, published, turns, caughtUp }));
