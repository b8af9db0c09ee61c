// Reads an AsyncAPI document as the official parser does; prints what it finds wrong as JSON.
const { createRequire } = require("node:module");
const { readFileSync } = require("node:fs");
const [document, packages] = process.argv.slice(2);
const { Parser } = createRequire(packages)("@asyncapi/parser");
new Parser().parse(readFileSync(document, "utf8")).then(({ diagnostics }) => {
  console.log(JSON.stringify(diagnostics.map(({ code, path, message }) => `${code} ${path.join(".")}: ${message}`)));
});
