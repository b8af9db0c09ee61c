// Calls functions of the page's modules: stdin has [[module, function, [arguments]], ...], stdout their answers, as JSON.
import { readFileSync } from "node:fs";

const [folder] = process.argv.slice(2);
const answers = [];
for (const [module, name, given] of JSON.parse(readFileSync(0, "utf8"))) {
  const found = (await import(`file://${folder}/${module}`))[name];
  answers.push(found(...given) ?? null);
}
console.log(JSON.stringify(answers));
