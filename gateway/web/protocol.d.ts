// The frames of /api/live, and the bodies and answers of REST. Made from `protocol/` and `gateway/rest/` by
// `make generate`; do not edit. A field with `?` may be left out; it then has its default.

/** A time, ISO 8601 with its zone. */
export type Time = string;

export type AnyClientFrame =
  | SignIn | WatchTask | UnwatchTask | WatchTasks | Submit | Say | Answer | Approve | Deny | Cancel | ChangeBudget | Prioritize | Pause | Resume | Retry | Tag | Archive | Ping | Looking;

export type CommandFrame =
  | Submit | Say | Answer | Approve | Deny | Cancel | ChangeBudget | Prioritize | Pause | Resume | Retry | Tag | Archive;

export type AnyServerFrame =
  | SignedIn | Accepted | Refused | DecisionSeen | JournalSeen | OutputSeen | CaughtUp | TaskLine | Tasks | ReceiptSeen | Closing | Pong;

export type AnyTaskEvent =
  | TaskSubmitted | MessageSent | TurnOpened | AttemptClaimed | BudgetSet | PrioritySet | AttemptEnded | TaskQueued | TaskDelayed | TaskPaused | TaskResumed | TaskTagged | QuestionRaised | QuestionAnswered | TurnEnded | TaskArchived | TaskRestored;

export type AnyJournalEvent =
  | AttemptStarted | SandboxRestored | StepStarted | StepFinished | CheckpointMade | SetupStarted | SetupFinished | Noticed | HostRefused;

/** The first frame. */
export interface SignIn {
  type: "sign_in";
  /** The device's own, from `POST /api/sign-in`. */
  token: string;
}

/** Replay the task's events after `cursor`, then follow it. Watching again changes `output`, and moves nothing back. */
export interface WatchTask {
  type: "watch_task";
  task: string;
  /** @default 0 */
  cursor?: number;
  /** Whether to send previews of running steps too. @default true */
  output?: boolean;
}

/** Send nothing more of this task. */
export interface UnwatchTask {
  type: "unwatch_task";
  task: string;
}

/** Send the task list now, and a line whenever a task of the user's changes. After a break between server and NATS the whole list comes again. */
export interface WatchTasks {
  type: "watch_tasks";
  /** Lines of the list, at most `LIST_LIMIT`. @default 50 */
  limit?: number;
}

/** Open a task. `key` is the client's idempotency key: sent again, it is the same task. */
export interface Submit {
  type: "submit";
  key: string;
  prompt: string;
  /** A git URL, or a path on the server (the owner only); a fork's is the other task's. @default "" */
  repository?: string;
  /** @default "" */
  base?: string;
  /** @default "" */
  model?: string;
  /** @default {} */
  budget?: Budget;
  /** @default "" */
  title?: string;
  /** Whose runners it waits for. @default "default" */
  queue?: string;
  /** What its runner must have. @default [] */
  labels?: string[];
  /** -10 to 10: which of the user's own tasks goes first. @default 0 */
  priority?: number;
  /** Whether a pull request is opened for the branch, where the git host has them. @default true */
  pull_request?: boolean;
  /** What this task asks before; they come before the user's own. @default [] */
  rules?: Rule[];
  /** @default [] */
  tags?: string[];
  metadata?: Record<string, string>;
  /** A task of the user's whose work this one starts from, in its repository. @default "" */
  fork_of?: string;
  /** Not before this time, which has a time zone; none, or one that has passed, means now. @default null */
  start_at?: Time | null;
  /** A turn that no runner has begun after so long fails. @default null */
  queue_seconds?: number | null;
  /** A turn is ended after so long, its work saved; counted from when a runner could have begun it. @default null */
  turn_seconds?: number | null;
}

/** What one turn may spend. Zero means zero, absent means the configured default, null means unlimited. */
export interface Budget {
  money_usd?: number | null;
  /** Input and output tokens together, cached ones included. */
  tokens?: number | null;
  /** Model calls and tool calls together. */
  steps?: number | null;
  wall_seconds?: number | null;
}

/** Of a list, the first rule that matches a tool call decides; where none does, it is allowed. */
export interface Rule {
  action: RuleAction;
  /** One of `RULED_TOOLS`. @default "*" */
  tool?: string;
  /** A glob over the command, or over the path from the repository's root; `*` stands for `/` and line breaks too. @default "*" */
  pattern?: string;
}

/** A message to a task: steers the open turn, or opens the next. */
export interface Say {
  type: "say";
  key: string;
  task: string;
  text: string;
}

/** An answer to the open question; the first one wins, whichever device it comes from. */
export interface Answer {
  type: "answer";
  key: string;
  task: string;
  question: string;
  text: string;
}

/** Yes to what the open question asks to do; the first decision wins, whichever device it comes from. */
export interface Approve {
  type: "approve";
  key: string;
  task: string;
  question: string;
}

/** No to it: the agent is told so, with the reason, and goes on. */
export interface Deny {
  type: "deny";
  key: string;
  task: string;
  question: string;
  /** @default "" */
  reason?: string;
}

/** End the open turn now. */
export interface Cancel {
  type: "cancel";
  key: string;
  task: string;
  /** @default "" */
  reason?: string;
}

/** What a turn of this task may spend from now on; a running one has it before its next step. */
export interface ChangeBudget {
  type: "change_budget";
  key: string;
  task: string;
  /** What it says nothing of stays as it is. */
  budget: Budget;
}

/** This one sooner, or later, than the user's others. */
export interface Prioritize {
  type: "prioritize";
  key: string;
  task: string;
  priority: number;
}

/** Hold the open turn back: the work is saved, and no attempt starts until `resume`. */
export interface Pause {
  type: "pause";
  key: string;
  task: string;
  /** @default "" */
  reason?: string;
}

/** Let a paused turn go on. */
export interface Resume {
  type: "resume";
  key: string;
  task: string;
}

/** Try a turn that failed or was cancelled again: the next turn, with the same wish. */
export interface Retry {
  type: "retry";
  key: string;
  task: string;
}

/** Mark the task, in any state, so that it is found again. */
export interface Tag {
  type: "tag";
  key: string;
  task: string;
  /** Tags. @default [] */
  add?: string[];
  /** Tags; one that it does not have does not matter. @default [] */
  remove?: string[];
  /** What to put under these names; null takes away what is there. */
  metadata?: Record<string, string | null>;
}

/** Put an ended task into the archive now. A message opens it again. */
export interface Archive {
  type: "archive";
  key: string;
  task: string;
}

/** Is the connection alive? A page in a browser cannot see the pings of the WebSocket itself. */
export interface Ping {
  type: "ping";
}

/** Whether the page is on the screen: a device that looks is sent no push. A new socket does not look until it says so. Sockets of one device count together. */
export interface Looking {
  type: "looking";
  looking: boolean;
}

/** The answer to `sign_in`: who this device is. */
export interface SignedIn {
  type: "signed_in";
  user: string;
  name: string;
  role: string;
  /** The id of this device. @default "" */
  device?: string;
  /** Sentences to show on every screen: scripted model, unsandboxed. @default [] */
  notices?: string[];
}

/** The command is stored and will have exactly one receipt, which this socket sees after this frame. */
export interface Accepted {
  type: "accepted";
  key: string;
  task: string;
  sequence: number;
}

/** What was sent was not taken, and the socket stays. `key` or `task` say which, where the frame had one. */
export interface Refused {
  type: "refused";
  /** A sentence that says what to do. */
  reason: string;
  /** @default "" */
  key?: string;
  /** @default "" */
  task?: string;
  /** The field that is wrong, where it is one. @default "" */
  field?: string;
  /** `refused`, `not_found` or `unavailable`; only `unavailable` is worth another try, with the same key. @default "refused" */
  code?: string;
}

/** One decision of the task's log. */
export interface DecisionSeen {
  type: "decision_seen";
  task: string;
  sequence: number;
  /** The sequence of the task's decision before this one; 0 for the first. Of the task's last event of either kind where the decision ended an attempt without its runner's word (a cancel, a lost lease). */
  previous: number;
  decision: Decision;
}

/** One message on `evt.<user>.<task>.task.<state>`: all that followed from one command, or from a lost lease. */
export interface Decision {
  type: "decision";
  at: Time;
  /** What the events led to; the subject's last token. */
  state: TaskState;
  /** @default [] */
  events?: AnyTaskEvent[];
  /** @default null */
  receipt?: Receipt | null;
  /** The stream sequence of the command that this answers; 0 when none was the cause. @default 0 */
  command_sequence?: number;
  /** Where this ended an attempt: the sequence of the last message of its journal, 0 when it wrote none. @default 0 */
  journal_sequence?: number;
}

/** The task exists and its first turn is open and queued. */
export interface TaskSubmitted {
  type: "task_submitted";
  prompt: string;
  repository: string;
  title: string;
  /** @default "" */
  base?: string;
  /** @default "" */
  model?: string;
  /** @default {} */
  budget?: Budget;
  /** @default "default" */
  queue?: string;
  /** @default [] */
  labels?: string[];
  /** @default 0 */
  priority?: number;
  /** @default true */
  pull_request?: boolean;
  /** @default [] */
  rules?: Rule[];
  /** @default [] */
  tags?: string[];
  metadata?: Record<string, string>;
  /** The task of the same user whose work this one starts from; empty for one that starts from the base. @default "" */
  fork_of?: string;
  /** @default null */
  start_at?: Time | null;
  /** @default null */
  queue_seconds?: number | null;
  /** @default null */
  turn_seconds?: number | null;
  /** @default "" */
  schedule?: string;
}

/** The user said something; `message` counts from 1 in the task, the prompt being message 0. */
export interface MessageSent {
  type: "message_sent";
  message: number;
  text: string;
}

/** A message came after an outcome, or the user asked to try again: the next turn is open and queued. */
export interface TurnOpened {
  type: "turn_opened";
  turn: number;
  /** The turn whose wish this one repeats; 0 for one that a message opened. @default 0 */
  retries?: number;
}

/** A runner has the turn. The attempt's number fences whoever had it before. */
export interface AttemptClaimed {
  type: "attempt_claimed";
  attempt: number;
  turn: number;
  runner: string;
  /** The claim's id: the same request gets the same attempt. */
  request: string;
  /** What the runner has. @default [] */
  labels?: string[];
  /** @default {} */
  terms?: Terms;
}

/** What the user's log said when the attempt was claimed. It holds for the whole attempt. */
export interface Terms {
  /** For a task that names none; empty means the runner's default. @default "" */
  model?: string;
  /** For what the task says nothing of. @default {} */
  budget?: Budget;
  /** After the task's own. @default [] */
  rules?: Rule[];
  /** What the attempt may spend of the user's money for the day, set aside for it; None: there is no limit. @default null */
  day_usd?: number | null;
  /** Where there is a limit: when the user's day ends. @default null */
  day_ends?: Time | null;
}

/** What a turn may spend from now on. */
export interface BudgetSet {
  type: "budget_set";
  budget: Budget;
}

/** The task goes sooner or later than the user's others. */
export interface PrioritySet {
  type: "priority_set";
  priority: number;
}

/** The attempt's runner writes nothing more. The turn goes on as the event after it says. */
export interface AttemptEnded {
  type: "attempt_ended";
  attempt: number;
  how: AttemptEnd;
  /** @default "" */
  reason?: string;
  /** @default {} */
  usage?: Usage;
}

/** What model calls consumed. */
export interface Usage {
  /** @default 0 */
  input_tokens?: number;
  /** @default 0 */
  cache_read_tokens?: number;
  /** @default 0 */
  cache_write_tokens?: number;
  /** @default 0 */
  output_tokens?: number;
  /** @default 0.0 */
  cost_usd?: number;
}

/** The open turn waits for a slot again. */
export interface TaskQueued {
  type: "task_queued";
  reason: string;
}

/** The open turn is queued at `until`, its start date or another try; a paused one not before. */
export interface TaskDelayed {
  type: "task_delayed";
  until: Time;
  reason: string;
  /** What was left of the user's money for the day, and was not enough: with more than that the turn goes on before `until`. None: it waits for something else. @default null */
  day_usd?: number | null;
}

/** The open turn is held back. A runner that holds the attempt saves the work and gives it back. */
export interface TaskPaused {
  type: "task_paused";
  reason: string;
}

/** The open turn is held back no more: a question waits again, a runner that still holds the attempt has it. Else a `TaskQueued` or a `TaskDelayed` follows. */
export interface TaskResumed {
  type: "task_resumed";
}

/** All of the task's marks, as they are from now on. */
export interface TaskTagged {
  type: "task_tagged";
  /** @default [] */
  tags?: string[];
  metadata?: Record<string, string>;
}

/** The agent needs an answer; the turn waits. */
export interface QuestionRaised {
  type: "question_raised";
  question: Question;
}

/** What the agent needs from the user. */
export interface Question {
  id: string;
  text: string;
  /** Suggested answers; free text is always allowed. @default [] */
  choices?: string[];
  /** @default "answer" */
  kind?: QuestionKind;
  /** For an approval: the tool that is to be used, as rules name it. @default "" */
  tool?: string;
  /** For an approval: what the tool is given, as a person reads it. @default "" */
  input?: string;
  /** How long the user has. Then the default is the answer; where there is none, the turn fails. @default null */
  deadline_seconds?: number | null;
  /** @default "" */
  default_answer?: string;
}

/** The first answer; the turn goes on with it. */
export interface QuestionAnswered {
  type: "question_answered";
  question: string;
  /** Of a denial, its reason. */
  text: string;
  /** None where words were asked for. @default null */
  approved?: boolean | null;
  /** The device that approved or denied. @default "" */
  device?: string;
  /** Nobody answered in time: it is the question's default. @default false */
  by_deadline?: boolean;
}

/** Each turn has exactly one. */
export interface TurnEnded {
  type: "turn_ended";
  turn: number;
  outcome: TaskState;
  /** @default "" */
  summary?: string;
  /** Why it failed or who cancelled; empty for a success. @default "" */
  reason?: string;
  /** The device that cancelled. @default "" */
  device?: string;
  /** @default null */
  published?: Published | null;
  /** @default {} */
  usage?: Usage;
}

/** Where a turn's work went. */
export interface Published {
  branch: string;
  commit: string;
  base_commit: string;
  /** The remote, without credentials. */
  pushed_to: string;
  /** @default 0 */
  files_changed?: number;
  /** @default 0 */
  insertions?: number;
  /** @default 0 */
  deletions?: number;
  /** @default null */
  pull_request?: PullRequest | null;
}

/** What asks for the work to be merged. */
export interface PullRequest {
  number: number;
  /** For people. */
  url: string;
  /** @default false */
  draft?: boolean;
}

/** Everything before this is in the archive and leaves the stream: a fold begins here, with `fold`. Its message names as the one before it the last event of the task, of either kind. */
export interface TaskArchived {
  type: "task_archived";
  /** The task as it was (`Task` in protocol/evolve.py); a long prompt is cut. */
  fold?: Record<string, unknown>;
  /** The object's name in the bucket `archive`: JSON lines, one an event, in gzip. @default "" */
  archive?: string;
  /** The sequence of the last event in it. @default 0 */
  until?: number;
  /** The blob from which the workspace is made again; empty when nothing was changed. @default "" */
  checkpoint?: string;
  /** The same of the files that git ignores. @default "" */
  ignored?: string;
}

/** An archived task goes on. What came before stays in the archive and is read from there. */
export interface TaskRestored {
  type: "task_restored";
}

/** How a command ended. A command that was stored has exactly one. */
export interface Receipt {
  key: string;
  status: ReceiptStatus;
  /** @default "" */
  reason?: string;
  /** When it was given, where a user's log keeps it. @default null */
  at?: Time | null;
  /** What it was, as its subject names it: another one under the same key is not done. Empty in older receipts, and where it could not be read. @default "" */
  command?: string;
}

/** One entry of the task's journal. */
export interface JournalSeen {
  type: "journal_seen";
  task: string;
  sequence: number;
  /** The sequence of the task's event before this one, of either kind. */
  previous: number;
  entry: JournalEntry;
}

/** One message on `evt.<user>.<task>.journal.<kind>`; the kind is the event's tag. */
export interface JournalEntry {
  attempt: number;
  at: Time;
  event: AnyJournalEvent;
}

/** The attempt's ground: what it works on and with. */
export interface AttemptStarted {
  type: "attempt_started";
  turn: number;
  /** The commit of the repository that the task's work stands on, the same in every attempt. */
  base_commit: string;
  branch: string;
  /** The name as requested from the API. */
  model: string;
  /** The driver's name; `unsandboxed` is shown as a warning. */
  sandbox: string;
  /** True when the answers come from the scripted model and not from Claude. @default false */
  scripted?: boolean;
  /** The repository's AGENTS.md or CLAUDE.md at the base commit, as put into the system prompt. @default "" */
  instructions?: string;
  /** What Errand tells the model where a turn begins otherwise than by the user's words; once a turn. @default "" */
  told?: string;
  /** What the sandbox may reach of the network: hosts and names of registries, as the owner wrote them. @default [] */
  egress?: string[];
  /** The last step whose effect on the workspace is there again; what came after it is lost. @default 0 */
  restored_step?: number;
  /** The sandbox is that of the attempt before, as that left it: files, shell, processes, and a command that ran. @default false */
  sandbox_kept?: boolean;
}

/** The attempt's sandbox has died, and the attempt goes on in a new one: without the shell, what ran in it, files outside of the workspace, and what was done since the checkpoint. Written before the new one is made. */
export interface SandboxRestored {
  type: "sandbox_restored";
  /** Why the one before is gone. */
  reason: string;
  /** As in `AttemptStarted`. @default 0 */
  restored_step?: number;
}

/** Written before the effect: after it, the step's outcome is known or said to be unknown. */
export interface StepStarted {
  type: "step_started";
  step: number;
  action: ModelCall | ToolCall;
}

/** One request to the model. */
export interface ModelCall {
  type: "model_call";
  /** The user's messages that this request is the first to contain (0 is the prompt), in order. @default [] */
  messages_read?: number[];
  /** The most it can cost; counted as spent if its answer is lost. @default 0.0 */
  reserved_usd?: number;
}

/** One tool call of the model's last message. */
export interface ToolCall {
  type: "tool_call";
  /** The model's `tool_use` id. */
  id: string;
  name: string;
  input: Record<string, unknown>;
  /** How long the user took to approve it; no part of the time that the turn takes. @default 0.0 */
  waited_seconds?: number;
}

/** Each started step has exactly one. */
export interface StepFinished {
  type: "step_finished";
  step: number;
  result: ModelReply | ToolResult | StepLost;
  /** @default 0.0 */
  duration_seconds?: number;
}

/** The model's message, its content verbatim. */
export interface ModelReply {
  type: "model_reply";
  content: Record<string, unknown>[];
  stop_reason: string;
  usage: Usage;
}

/** What the tool answered to the model. */
export interface ToolResult {
  type: "tool_result";
  text: string;
  /** @default false */
  is_error?: boolean;
  /** @default null */
  exit_code?: number | null;
  /** Cut out of the middle of a long output. @default 0 */
  dropped_bytes?: number;
}

/** The outcome is unknown or there is none: the runner died, the call broke off, or the turn ended first. */
export interface StepLost {
  type: "step_lost";
  reason: string;
  /** What was paid or must be taken as paid. @default {} */
  usage?: Usage;
}

/** The workspace as it was after `step`. */
export interface CheckpointMade {
  type: "checkpoint_made";
  step: number;
  head: string;
  commit: string;
  tree: string;
  /** The bundle's name in the object store; empty when there is nothing beyond the base commit. @default "" */
  blob?: string;
  /** @default 0 */
  size_bytes?: number;
  /** The name there of a tar with the files that git ignores; empty where they are not kept. @default "" */
  ignored?: string;
}

/** The repository's set-up runs, or the same one of another task is waited for. What it says comes as `Output` of step 0. Nothing is written where what an earlier one left is used. */
export interface SetupStarted {
  type: "setup_started";
  /** The file of the repository that is run. */
  script: string;
}

/** What it left is kept for this and later tasks; or it failed, and so does the turn. */
export interface SetupFinished {
  type: "setup_finished";
  script: string;
  /** Why it failed; empty when it did not. @default "" */
  reason?: string;
  /** The end of what it said, without the values of secrets. @default "" */
  output?: string;
  /** @default null */
  exit_code?: number | null;
  /** @default 0.0 */
  duration_seconds?: number;
}

/** Something a person would want to know: a retry of the model, a restored workspace, a refused host. */
export interface Noticed {
  type: "noticed";
  text: string;
  /** `info` or `warning`. @default "info" */
  level?: string;
}

/** A command asked for a host of the network that its sandbox may not reach, or that cannot be reached. Told once a host and port; where there are very many, of some. */
export interface HostRefused {
  type: "host_refused";
  /** As it was asked for, in visible ASCII; empty where further ones are not told, or a name was looked up where names are not. */
  host: string;
  port: number;
  /** A sentence that says what can be done. */
  reason: string;
}

/** A preview of a running step. On a slow connection pieces are joined, or left out: `output.offset` shows it. */
export interface OutputSeen {
  type: "output_seen";
  task: string;
  output: Output;
}

/** One message on `out.<user>.<task>`: a preview, superseded by its step's `step_finished`. */
export interface Output {
  attempt: number;
  /** `SETUP_STEP` for the set-up. */
  step: number;
  /** Characters of this step's output before this piece. */
  offset: number;
  text: string;
  /** `text` and `thinking` come from the model, `tool` from a command, `input` is a tool call being written. @default "text" */
  channel?: string;
}

/** All that was stored by the time of the watch has been sent. */
export interface CaughtUp {
  type: "caught_up";
  task: string;
  cursor: number;
}

/** A line of the task list, new or changed. */
export interface TaskLine {
  type: "task_line";
  task: TaskSummary;
}

/** A line of the task list. */
export interface TaskSummary {
  id: string;
  title: string;
  state: TaskState;
  repository: string;
  created_at: string;
  updated_at: string;
  /** @default 0 */
  turn?: number;
  /** @default "" */
  reason?: string;
  /** @default "" */
  branch?: string;
  /** Its URL. @default "" */
  pull_request?: string;
  /** @default 0.0 */
  cost_usd?: number;
  /** @default "" */
  question?: string;
  /** Why a queued one waits, by who asked the scheduler. @default "" */
  waits?: string;
  /** It ended long ago, or its user put it away. A message opens it again. @default false */
  archived?: boolean;
  /** @default [] */
  tags?: string[];
  /** When a delayed one goes on. @default "" */
  until?: string;
}

/** The task list, the last changed first. */
export interface Tasks {
  type: "tasks";
  tasks: TaskSummary[];
  /** Whether there are older ones than `limit` let in. @default false */
  more?: boolean;
}

/** How a command ended. Sent to every device of the user that is signed in; to the one that sent the command also when it had ended before it was sent again. */
export interface ReceiptSeen {
  type: "receipt_seen";
  task: string;
  receipt: Receipt;
}

/** The last frame before the server closes; `come_back` says whether to reconnect from the cursors. */
export interface Closing {
  type: "closing";
  reason: string;
  /** @default true */
  come_back?: boolean;
}

/** The answer to `Ping`. */
export interface Pong {
  type: "pong";
}

export interface AddUserBody {
  name: string;
}

export interface AnswerBody {
  /** The idempotency key; or in the header `Idempotency-Key`. @default "" */
  key?: string;
  question: string;
  text: string;
}

export interface ApproveBody {
  /** The idempotency key; or in the header `Idempotency-Key`. @default "" */
  key?: string;
  question: string;
}

export interface BudgetBody {
  /** The idempotency key; or in the header `Idempotency-Key`. @default "" */
  key?: string;
  /** What it says nothing of stays as it is. */
  budget: Budget;
}

export interface BulkBody {
  action: BulkAction;
  /** The idempotency key; or in the header `Idempotency-Key`. What is repeated under it means the same tasks. @default "" */
  key?: string;
  /** Of a cancel or a pause. @default "" */
  reason?: string;
  /** Which tasks: those of which all that is given is so, and to which it can be done. @default [] */
  states?: TaskState[];
  /** @default [] */
  tags?: string[];
  metadata?: Record<string, string>;
  /** A part of its URL. @default "" */
  repository?: string;
  /** Words that are all in the title or the prompt. @default "" */
  search?: string;
}

/** What became of one bulk so far. The same request asks again. */
export interface Carried {
  key: string;
  action: BulkAction;
  tasks: BulkTask[];
  /** Whether there were more such tasks than one bulk takes: ask for the rest under another key. @default false */
  more?: boolean;
}

export interface BulkTask {
  task: string;
  /** Of the receipt: `consumed` or `rejected`; empty while the scheduler has not decided. @default "" */
  status?: string;
  /** @default "" */
  reason?: string;
}

export interface DailyLimitBody {
  /** Absent means the installation's default, null unlimited. */
  daily_usd?: number | null;
}

export interface DenyBody {
  /** The idempotency key; or in the header `Idempotency-Key`. @default "" */
  key?: string;
  question: string;
  /** What to do instead: the agent is told. @default "" */
  reason?: string;
}

export interface Diff {
  type: "diff";
  /** Unified diff; cut at 256 KiB. */
  text: string;
  /** @default false */
  cut?: boolean;
}

export interface Doctor {
  healthy: boolean;
  checks: Check[];
  /** Of one process of each service; one that does not answer is missing. @default [] */
  settings?: ServiceSettings[];
  /** Where people reach this server. @default "" */
  url?: string;
  /** What `GET /api/installation` must answer at that address, if the way there leads here. @default "" */
  installation?: string;
}

/** One thing that was looked at, as `errand doctor` shows it. */
export interface Check {
  name: string;
  /** `ok`, `warn` or `fail`. */
  status: string;
  /** What was found, and what to do where it is not ok. */
  text: string;
}

/** What a process that runs was started with. */
export interface ServiceSettings {
  service: string;
  process: string;
  settings: SettingInForce[];
}

/** A setting as a process has it. */
export interface SettingInForce {
  name: string;
  /** As it would stand in the environment. Of a secret `set` or nothing, of an address without what may be secret. */
  value: string;
  /** @default false */
  is_default?: boolean;
}

/** The answer to what is not done. */
export interface Failure {
  /** A sentence that says what to do. */
  error: string;
  /** The field that is wrong, where it is one. @default "" */
  field?: string;
}

/** Whether people can sign in with GitHub, and where a browser goes for it. */
export interface GithubSignIn {
  available: boolean;
  /** @default "/api/sign-in/github/start" */
  start?: string;
}

/** Healthy only with a connection to NATS and with every reader moving. */
export interface Health {
  type: "health";
  healthy: boolean;
  service: string;
  /** @default "" */
  detail?: string;
  /** Sentences to show the user on every screen: scripted model, unsandboxed. @default [] */
  notices?: string[];
  /** From a runner: names to offer for a task, the default first. Another name that the API knows is taken too. @default [] */
  models?: string[];
}

export interface HostBody {
  host: string;
  kind: HostKind;
  /** A token, or an OpenSSH private key. */
  secret: string;
  /** @default "" */
  username?: string;
  /** For every user's tasks, not the owner's alone. @default false */
  shared?: boolean;
}

export interface HostShown {
  host: string;
  kind: string;
  username: string;
  shared: boolean;
}

export interface Hosts {
  hosts: HostShown[];
}

export interface Installation {
  /** The same at all gateways of an installation, and at no other. */
  id: string;
}

export interface KeyBody {
  /** The idempotency key; or in the header `Idempotency-Key`. @default "" */
  key?: string;
}

/** One of them. */
export interface Letter {
  /** Its number here. */
  sequence: number;
  /** Where it was found. */
  subject: string;
  /** The stream sequence it had there. */
  of: number;
  reason: string;
  at: string;
  size_bytes: number;
  /** The beginning of it, as far as it can be printed; nothing of users' own logs, where credentials pass sealed. */
  excerpt: string;
}

export interface Letters {
  /** The oldest first; ask again with `after`, the sequence of the last one here. */
  letters: Letter[];
}

export interface LinkBody {
  /** Whose link; empty means the asker's own. Another user's is the owner's to make. @default "" */
  user?: string;
  /** Whether to draw it as a QR code too. @default false */
  qr?: boolean;
}

export interface Listed {
  tasks: TaskSummary[];
  /** Whether there are older ones: ask again with `before` and `before_at`, the last one's `id` and `updated_at`. */
  more: boolean;
}

export interface Me {
  user: string;
  name: string;
  role: string;
  /** The id of the device that asks. */
  device: string;
  devices: DeviceShown[];
  /** Sentences to show on every screen. */
  notices: string[];
  /** The login of the GitHub account with which the asker's branches are pushed. @default "" */
  github?: string;
  /** Names to offer for a task, the default first; another one that the API knows is taken too. @default [] */
  models?: string[];
  /** The asker's own default; empty means the first of `models`. @default "" */
  model?: string;
}

export interface DeviceShown {
  id: string;
  name: string;
  added_at: Time;
  /** Whether it is told of what happens while its page is closed. @default false */
  push?: boolean;
}

export interface PriorityBody {
  /** The idempotency key; or in the header `Idempotency-Key`. @default "" */
  key?: string;
  priority: number;
}

export interface PushOffered {
  /** For `pushManager.subscribe({applicationServerKey})`, base64url; empty where nothing is offered. */
  public_key: string;
  available: boolean;
  /** Why not, and what to do about it. @default "" */
  reason?: string;
  /** Whether this device is told. A browser may hold on to a subscription that the server has dropped. @default false */
  subscribed?: boolean;
}

export interface QueueBody {
  /** Whether its tasks are held back; those that run go on. */
  paused?: boolean;
  /** How many of its tasks run at one time; null is the scheduler's own setting. */
  running_limit?: number | null;
}

/** How the owner wants a queue to be served. */
export interface QueueSettings {
  /** @default false */
  paused?: boolean;
  /** None is the scheduler's own setting. @default null */
  running_limit?: number | null;
}

export interface QueueShown {
  type: "queue_shown";
  /** @default [] */
  queues?: QueueLine[];
  /** @default [] */
  waiting?: WaitingTask[];
  /** @default [] */
  running?: RunningTask[];
  /** @default [] */
  runners?: RunnerLine[];
  /** Whether more wait than are shown. @default false */
  more?: boolean;
  /** @default [] */
  stopped?: StoppedLog[];
}

/** One queue. The numbers are of the tasks that the asker may see. */
export interface QueueLine {
  queue: string;
  /** @default 0 */
  waiting?: number;
  /** @default 0 */
  running?: number;
  /** @default 0 */
  running_limit?: number;
  /** @default false */
  paused?: boolean;
  /** Whether a runner takes work from it now. @default false */
  served?: boolean;
}

/** A task in the line. Title and repository of the asker's own alone. */
export interface WaitingTask {
  id: string;
  user: string;
  queue: string;
  /** In its queue, from 1: the order in which they are served if no other comes. */
  place: number;
  why: Why;
  /** The same as a sentence. */
  reason: string;
  /** @default [] */
  labels?: string[];
  /** From when its wait counts. @default null */
  since?: Time | null;
  /** @default 0 */
  priority?: number;
  /** With what the wait has added. @default 0.0 */
  effective_priority?: number;
  /** @default "" */
  title?: string;
  /** @default "" */
  repository?: string;
}

/** A task that has a slot: it runs, or a runner holds it while the user is asked. */
export interface RunningTask {
  id: string;
  user: string;
  queue: string;
  /** @default [] */
  labels?: string[];
  /** @default "" */
  runner?: string;
  /** @default null */
  since?: Time | null;
  /** @default "" */
  title?: string;
  /** @default "" */
  repository?: string;
}

/** A runner, by what was last heard of it: a hint. */
export interface RunnerLine {
  queue: string;
  /** For the owner. @default "" */
  runner?: string;
  /** @default [] */
  labels?: string[];
  /** @default 1 */
  slots?: number;
  /** Slots in use, for the owner. @default null */
  busy?: number | null;
  /** When it last asked for work: one that is full asks no more. @default null */
  heard_at?: Time | null;
}

/** A task, or a user, of which nothing can be decided. Title and repository of the asker's own alone. */
export interface StoppedLog {
  user: string;
  /** Empty: the user itself. @default "" */
  task?: string;
  /** A sentence that says what to do. @default "" */
  reason?: string;
  /** How many wait for it. @default 0 */
  commands?: number;
  /** @default "" */
  title?: string;
  /** @default "" */
  repository?: string;
}

export interface ReasonBody {
  /** The idempotency key; or in the header `Idempotency-Key`. @default "" */
  key?: string;
  /** @default "" */
  reason?: string;
}

export interface RemoveHostBody {
  host: string;
}

export interface Rules {
  /** The first that matches decides; where none does, a call is allowed. */
  rules: Rule[];
}

export interface SayBody {
  /** The idempotency key; or in the header `Idempotency-Key`. @default "" */
  key?: string;
  text: string;
}

/** As the user's log made it. */
export interface Schedule {
  id: string;
  name: string;
  cron: string;
  time_zone: string;
  submission: Submission;
  added_at: Time;
  /** @default "once" */
  catch_up?: CatchUp;
  /** None while it is paused. @default null */
  next_at?: Time | null;
  /** Why it is; empty while it is not. @default "" */
  paused?: string;
  /** In a row. @default 0 */
  failures?: number;
  /** @default [] */
  runs?: Run[];
  /** @default "" */
  last_task?: string;
  /** @default null */
  last_due?: Time | null;
  /** @default null */
  last_outcome?: TaskState | null;
}

/** What a schedule submits, as `SubmitTask` has it. */
export interface Submission {
  prompt: string;
  repository: string;
  /** @default "" */
  base?: string;
  /** @default "" */
  model?: string;
  /** @default {} */
  budget?: Budget;
  /** @default "" */
  title?: string;
  /** @default "default" */
  queue?: string;
  /** @default [] */
  labels?: string[];
  /** @default 0 */
  priority?: number;
  /** @default true */
  pull_request?: boolean;
  /** @default [] */
  rules?: Rule[];
  /** @default [] */
  tags?: string[];
  metadata?: Record<string, string>;
  /** @default null */
  queue_seconds?: number | null;
  /** @default null */
  turn_seconds?: number | null;
}

/** One occurrence whose task has not come to an outcome yet. */
export interface Run {
  task: string;
  due: Time;
}

export interface ScheduleBody {
  name: string;
  /** Minute, hour, day of the month, month, day of the week: `0 9 * * 1-5`. */
  cron: string;
  /** An IANA name: `Europe/Berlin`. */
  time_zone: string;
  /** What is submitted, without a start date. */
  task: SubmitBody;
  /** What becomes of occurrences that fell due while the server was down. @default "once" */
  catch_up?: CatchUp;
  /** @default "" */
  key?: string;
}

export interface SubmitBody {
  /** The idempotency key; or in the header `Idempotency-Key`. @default "" */
  key?: string;
  prompt: string;
  /** A git URL, or a path on the server (the owner only); a fork's is the other task's. @default "" */
  repository?: string;
  /** @default "" */
  base?: string;
  /** @default "" */
  model?: string;
  /** @default {} */
  budget?: Budget;
  /** @default "" */
  title?: string;
  /** @default "default" */
  queue?: string;
  /** What its runner must have. @default [] */
  labels?: string[];
  /** -10 to 10: which of the user's own tasks goes first. @default 0 */
  priority?: number;
  /** @default true */
  pull_request?: boolean;
  /** What this task asks before; they come before the asker's own. @default [] */
  rules?: Rule[];
  /** @default [] */
  tags?: string[];
  metadata?: Record<string, string>;
  /** A task of the asker's whose work this one starts from, in its repository. @default "" */
  fork_of?: string;
  /** Not before this time, which has a time zone; none, or one that has passed, means now. @default null */
  start_at?: Time | null;
  /** A turn that no runner has begun after so long fails. @default null */
  queue_seconds?: number | null;
  /** A turn is ended after so long, its work saved; counted from when a runner could have begun it. @default null */
  turn_seconds?: number | null;
}

export interface Schedules {
  schedules: Schedule[];
}

export interface SecretBody {
  /** Of the variable that the set-up's script finds it in. */
  name: string;
  value: string;
  /** The only one whose set-ups get it; empty: all that the asker's tasks work on. @default "" */
  repository?: string;
}

export interface SecretShown {
  name: string;
  repository: string;
  set_at: Time;
}

export interface Secrets {
  secrets: SecretShown[];
}

/** What a user's tasks have where they say nothing themselves. */
export interface Settings {
  /** Empty means the installation's. @default "" */
  model?: string;
  /** Of a turn; what is absent is the installation's. @default {} */
  budget?: Budget;
  /** An IANA name, such as `Europe/Berlin`: when the user's day begins. @default "UTC" */
  time_zone?: string;
  /** What all tasks together may spend in a day. It lowers what the owner allows; null lowers nothing. @default null */
  daily_usd?: number | null;
}

export interface SettingsShown {
  settings: Settings;
  /** Today, by attempts that have ended. */
  spent_usd: number;
  /** Set aside for those that run. */
  reserved_usd: number;
  /** What may be spent today; null means unlimited. */
  limit_usd: number | null;
  day_ends: Time;
}

/** A task as its decisions made it. */
export interface Shown {
  task: Task;
  state: TaskState;
  /** The stream sequence of its last decision; 0 when the scheduler has not decided yet. */
  sequence: number;
}

/** A task as its decisions made it. */
export interface Task {
  id: string;
  user: string;
  /** @default "queued" */
  state?: TaskState;
  /** @default "" */
  prompt?: string;
  /** @default "" */
  repository?: string;
  /** @default "" */
  base?: string;
  /** @default "" */
  model?: string;
  /** @default {} */
  budget?: Budget;
  /** @default "" */
  title?: string;
  /** @default "default" */
  queue?: string;
  /** What its runner must have. @default [] */
  labels?: string[];
  /** @default 0 */
  priority?: number;
  /** Whether its work is offered as a pull request. @default true */
  pull_request?: boolean;
  /** @default [] */
  tags?: string[];
  metadata?: Record<string, string>;
  /** The task whose work it started from. @default "" */
  fork_of?: string;
  /** What it asks before, whatever the user's own rules say. @default [] */
  rules?: Rule[];
  /** @default null */
  start_at?: Time | null;
  /** @default null */
  queue_seconds?: number | null;
  /** @default null */
  turn_seconds?: number | null;
  /** @default "" */
  schedule?: string;
  /** @default null */
  created_at?: Time | null;
  /** @default null */
  updated_at?: Time | null;
  /** @default null */
  queued_at?: Time | null;
  /** From when its wait counts: a turn that had begun keeps its place when it is queued again. @default null */
  in_line_since?: Time | null;
  /** When a runner last got it. @default null */
  claimed_at?: Time | null;
  /** The open turn, or the last one. @default 0 */
  turn?: number;
  /** Since when a runner could have begun the turn: where there is a start date, since then. @default null */
  turn_opened_at?: Time | null;
  /** The highest attempt so far. @default 0 */
  attempt?: number;
  /** Attempts of this turn that ended without its end: lease lost or failed. @default 0 */
  turn_attempts?: number;
  /** @default null */
  holder?: Holder | null;
  /** How many the user sent after the prompt. @default 0 */
  messages?: number;
  /** How many of them the open turn began with. @default 0 */
  messages_before?: number;
  /** @default null */
  question?: Question | null;
  /** @default null */
  asked_at?: Time | null;
  /** @default null */
  delayed_until?: Time | null;
  /** Delayed because so much was left of the user's money for the day: more of it moves it on at once. @default null */
  day_usd?: number | null;
  /** Why it waits, is delayed, failed or was cancelled. @default "" */
  reason?: string;
  /** @default "" */
  summary?: string;
  /** @default null */
  published?: Published | null;
  /** Of all ended turns. @default {} */
  usage?: Usage;
  /** Where the older part of its log is, once it was archived. @default "" */
  archive?: string;
  /** None also for one that was archived and goes on. @default null */
  archived_at?: Time | null;
  /** Of an archived one: the blob from which its workspace is made again. @default "" */
  checkpoint?: string;
  /** The same of the files that git ignores. @default "" */
  ignored?: string;
  /** Of the open turn, as far as its attempts have ended. @default {} */
  turn_usage?: Usage;
  /** What was spent in each quarter of an hour, in dollars; by the end of the attempt that spent it, for two days. */
  spent?: Record<string, number>;
  /** Of all its users' commands and timers, and of what a runner sent since the last attempt was claimed. */
  receipts?: Record<string, Receipt>;
  /** The stream sequence of the last command that has a receipt here. @default 0 */
  answered?: number;
}

/** Who holds the running attempt. */
export interface Holder {
  attempt: number;
  runner: string;
  request: string;
  /** What the runner has. @default [] */
  labels?: string[];
  /** @default {} */
  terms?: Terms;
}

export interface SignInBody {
  code: string;
  device_name: string;
}

export interface SignInLink {
  user: string;
  /** Good for one device; the code is in the fragment, which browsers send to no server. */
  link: string;
  expires_at: Time;
  /** Where it was asked for: the link as a QR code, a `data:` URL of an SVG. @default "" */
  qr?: string;
}

/** What a device needs from now on. */
export interface SignedInDevice {
  user: string;
  name: string;
  role: string;
  device: string;
  /** Shown this once; the server keeps its hash. */
  token: string;
}

/** Rows as JSON: times in ISO 8601 (UTC), decimals and integers of more than 64 bits as text, bytes in base64. */
export interface SqlAnswer {
  type: "sql_answer";
  columns: string[];
  rows: unknown[][];
  /** The stream sequence that the snapshot has reached. */
  sequence: number;
  /** True when `limit`, or the size of one message, cut the answer. @default false */
  more?: boolean;
  /** @default 0.0 */
  duration_seconds?: number;
}

export interface SqlBody {
  sql: string;
  /** The last stream sequence the asker has seen; the answer has reached it. @default 0 */
  at_least?: number;
  /** @default 1000 */
  limit?: number;
}

/** `PushSubscription.toJSON()` of the Push API. */
export interface Subscription {
  endpoint: string;
  keys: SubscriptionKeys;
}

export interface SubscriptionKeys {
  /** The browser's public key, an uncompressed point, base64url. */
  p256dh: string;
  /** 16 bytes that the browser and we share, base64url. */
  auth: string;
}

export interface TagBody {
  /** The idempotency key; or in the header `Idempotency-Key`. @default "" */
  key?: string;
  /** @default [] */
  add?: string[];
  /** @default [] */
  remove?: string[];
  /** What to put under these names; null takes away what is there. */
  metadata?: Record<string, string | null>;
}

export interface UsersShown {
  users: UserShown[];
}

export interface UserShown {
  id: string;
  name: string;
  role: string;
  added_at: Time | null;
  devices: DeviceShown[];
  /** The login of the GitHub account that is the user's. @default "" */
  github?: string;
}

export type RuleAction =
  | "allow"
  /** The user approves the call or denies it, and the turn waits meanwhile. */
  | "ask"
  /** The model is told that the call was not run. To finish is asked for instead: or no turn could end. */
  | "deny";

/** Where a task stands. Each line says who moves it on, and what happens when that actor dies. */
export type TaskState =
  /** Waits for a free slot. The scheduler moves it on when a runner claims; another scheduler does when that one dies. */
  | "queued"
  /** A runner holds the attempt. It moves the task on by its commands; when its lease of 5 s ends, the scheduler queues it again. */
  | "running"
  /** Asked the user. An answer moves it on; a runner may still hold the attempt, and when it dies the question stays. */
  | "waiting"
  /** Waits until a time: its start date, or when a passing failure may be over. A JetStream schedule moves it on, which the server keeps over any process's death. */
  | "delayed"
  /** Held back by the user, who moves it on and may do so from any device. A runner that held the attempt saves the work and gives it back; when it dies first, its lease ends the attempt and the task stays here. */
  | "paused"
  /** The last turn did what was asked. A message from the user opens the next turn. */
  | "succeeded"
  /** The last turn ended with a reason to act on. A message from the user opens the next turn. */
  | "failed"
  /** The user stopped the last turn. A message from the user opens the next turn. */
  | "cancelled";

/** How an attempt ended: by its runner's own word, or over its head. */
export type AttemptEnd =
  | "finished"
  | "failed"
  /** The turn had its time. */
  | "deadline"
  | "parked"
  | "cancelled"
  | "lease_lost";

/** What the user is asked for. */
export type QuestionKind =
  /** Words: `AnswerQuestion`. */
  | "answer"
  /** Whether a tool call may be made: `ApproveQuestion` or `DenyQuestion`. */
  | "approval"
  /** Whether the plan in the text is to be carried out: `ApproveQuestion` or `DenyQuestion`. */
  | "plan";

/** How a command ended. */
export type ReceiptStatus =
  /** It was carried out. */
  | "consumed"
  /** It changed nothing; the reason says why. */
  | "rejected"
  /** It may have been carried out long ago, and was not now: a runner's word for an attempt that others came after, of which the receipts are not kept. No user's command ends so. */
  | "indeterminate";

/** What can be done to many tasks at once. */
export type BulkAction =
  | "cancel"
  | "pause"
  | "resume"
  | "retry";

export type HostKind =
  /** A password or access token, sent as HTTP basic authentication. */
  | "token"
  /** An OpenSSH private key without passphrase: a deploy key. */
  | "ssh_key";

/** Why a queued task waits. */
export type Why =
  /** Every slot that fits is taken: its turn comes. */
  | "no_slot"
  /** The owner holds its queue back. */
  | "paused"
  /** No runner takes work from its queue: a wrong name, or a machine that is off. */
  | "not_served"
  /** Runners serve its queue, and none has all its labels. */
  | "no_labels"
  | "queue_limit"
  | "user_limit"
  | "repository_limit";

/** What becomes of occurrences that fell due while the server was down. */
export type CatchUp =
  /** Nothing. */
  | "skip"
  /** One task for all of them. */
  | "once"
  /** A task for each, the last `OPEN_RUNS_LIMIT` of them. */
  | "all";
