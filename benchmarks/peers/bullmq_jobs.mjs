// BullMQ on Redis: a job that does nothing. `node bullmq_jobs.mjs <port> <jobs> <at once> <one at a time>`
import { fork } from "node:child_process";
import { Queue, QueueEvents, Worker } from "bullmq";

const [port, jobs, atOnce, singles] = process.argv.slice(2).map(Number);
const connection = { host: "127.0.0.1", port };
const now = () => performance.timeOrigin + performance.now();

if (process.env.PEER_WORKER) {
  const worker = new Worker("bench", async () => now(), { connection, concurrency: atOnce });
  await worker.waitUntilReady();
  process.send("ready");
} else {
  const worker = fork(process.argv[1], process.argv.slice(2), { env: { ...process.env, PEER_WORKER: "1" } });
  await new Promise((resolve) => worker.once("message", resolve));
  const queue = new Queue("bench", { connection });
  const events = new QueueEvents("bench", { connection });
  await events.waitUntilReady();
  const starts = [];
  for (let number = 0; number < singles; number++) {
    const sent = now();
    const job = await queue.add("single", { number });
    starts.push((await job.waitUntilFinished(events)) - sent);
  }
  let left = jobs;
  const ended = new Promise((resolve) => events.on("completed", () => --left || resolve()));
  const since = now();
  await Promise.all(Array.from({ length: jobs }, (_, number) => queue.add("turn", { number })));
  await ended;
  console.log(JSON.stringify({ per_second: jobs / ((now() - since) / 1000), start_milliseconds: starts }));
  worker.kill();
  process.exit(0);
}
