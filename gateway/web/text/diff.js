/** A unified diff as files, hunks and numbered lines. Pure. */

/** @typedef {{kind: "add" | "del" | "same" | "note", old: number, new: number, text: string}} Line */
/** @typedef {{head: string, lines: Line[]}} Hunk */
/**
 * @typedef {object} File
 * @property {string} path
 * @property {string} from its name before, where that was another
 * @property {"changed" | "new" | "deleted" | "renamed"} how
 * @property {boolean} binary
 * @property {string} mode what changed about its mode, "" mostly
 * @property {number} added
 * @property {number} deleted
 * @property {Hunk[]} hunks
 */

const HUNK = /^@@ -(\d+)(?:,\d+)? \+(\d+)(?:,\d+)? @@ ?(.*)$/;

/**
 * @param {string} text what `git diff` printed
 * @returns {File[]}
 */
export function parse(text) {
  /** @type {File[]} */
  const files = [];
  /** @type {File | undefined} */
  let file;
  /** @type {Hunk | undefined} */
  let hunk;
  let at = { old: 0, new: 0 };
  for (const line of text.split("\n")) {
    if (line.startsWith("diff --git ")) {
      file = begin(line);
      files.push(file);
      hunk = undefined;
      continue;
    }
    if (!file) continue;
    const head = HUNK.exec(line);
    if (head) {
      at = { old: Number(head[1]), new: Number(head[2]) };
      hunk = { head: head[3] ?? "", lines: [] };
      file.hunks.push(hunk);
    } else if (hunk) addLine(file, hunk, at, line);
    else addHeader(file, line);
  }
  return files;
}

/** @param {string} line @returns {File} */
function begin(line) {
  // `--- a/x` and `+++ b/x` say it better; this is for a file without text.
  const names = line.slice("diff --git ".length);
  const half = unquoted(names.startsWith('"') ? names.slice(0, names.indexOf('" ') + 1) : names.slice(0, (names.length - 1) / 2));
  return { path: half.replace(/^a\//, ""), from: "", how: "changed", binary: false, mode: "", added: 0, deleted: 0, hunks: [] };
}

/**
 * @param {File} file
 * @param {string} line
 */
function addHeader(file, line) {
  if (line.startsWith("new file mode")) file.how = "new";
  else if (line.startsWith("deleted file mode")) file.how = "deleted";
  else if (line.startsWith("rename from ")) file.from = unquoted(line.slice(12));
  else if (line.startsWith("rename to ")) [file.path, file.how] = [unquoted(line.slice(10)), "renamed"];
  else if (line.startsWith("old mode ")) file.mode = line.slice(9);
  else if (line.startsWith("new mode ")) file.mode = `mode ${file.mode} → ${line.slice(9)}`;
  else if (line.startsWith("Binary files ") || line.startsWith("GIT binary patch")) file.binary = true;
  else if (line.startsWith("+++ ") && line !== "+++ /dev/null") file.path = unquoted(line.slice(4)).replace(/^b\//, "");
  else if (line.startsWith("--- ") && line !== "--- /dev/null") file.path = unquoted(line.slice(4)).replace(/^a\//, "");
}

/**
 * @param {File} file
 * @param {Hunk} hunk
 * @param {{old: number, new: number}} at
 * @param {string} line
 */
function addLine(file, hunk, at, line) {
  const text = line.slice(1);
  if (line.startsWith("+")) {
    file.added += 1;
    hunk.lines.push({ kind: "add", old: 0, new: at.new++, text });
  } else if (line.startsWith("-")) {
    file.deleted += 1;
    hunk.lines.push({ kind: "del", old: at.old++, new: 0, text });
  } else if (line.startsWith(" ")) hunk.lines.push({ kind: "same", old: at.old++, new: at.new++, text });
  else if (line.startsWith("\\")) hunk.lines.push({ kind: "note", old: 0, new: 0, text: text.trim() });
}

/** git writes unusual names in quotes, their bytes as octal numbers. @param {string} name */
function unquoted(name) {
  const trimmed = name.replace(/\t$/, "");
  if (!/^".*"$/.test(trimmed)) return trimmed;
  const bytes = [];
  for (const [part, octal, letter] of trimmed.slice(1, -1).matchAll(/\\([0-7]{3})|\\(.)|[^\\]+/gs)) {
    if (octal) bytes.push(parseInt(octal, 8));
    else bytes.push(...new TextEncoder().encode(letter ? ({ n: "\n", t: "\t" }[letter] ?? letter) : part));
  }
  return new TextDecoder().decode(new Uint8Array(bytes));
}
