/** Which command was meant: only its own code is loaded. */

import { Command, CommanderError } from 'commander'
import { describeError } from './errors.ts'
import { createSession, type Session } from './session.ts'
import { paint } from './terminal/style.ts'

export type Action = (session: Session) => Promise<void>

/** What a file of commands/ exports. `argv` are the words after the command's name. */
export interface CommandModule {
  define(command: Command, run: (action: Action) => Promise<void>, argv: readonly string[]): void
}

interface Entry {
  readonly name: string
  readonly summary: string
  readonly hidden?: boolean
  load(): Promise<CommandModule>
}

const COMMANDS: readonly Entry[] = [
  {
    name: 'quantize',
    summary: 'make a model smaller',
    load: () => import('./commands/quantize.ts'),
  },
  {
    name: 'eval',
    summary: 'perplexity, divergence from a reference model, zero-shot tasks',
    load: () => import('./commands/eval.ts'),
  },
  {
    name: 'generate',
    summary: 'continue a prompt',
    load: () => import('./commands/generate.ts'),
  },
  {
    name: 'convert',
    summary: 'write a model in another layout',
    load: () => import('./commands/convert.ts'),
  },
  {
    name: 'inspect',
    summary: 'what is in a model: tensors, bits, sizes',
    load: () => import('./commands/inspect.ts'),
  },
  {
    name: 'cost',
    summary: 'bytes, arithmetic and speed at most of a model on a device',
    load: () => import('./commands/cost.ts'),
  },
  {
    name: 'studio',
    summary: 'the same as a web page: quantize, look, chat, in a browser tab',
    load: () => import('./commands/studio.ts'),
  },
  {
    name: 'methods',
    summary: 'every method, format and device, and what goes with what',
    load: () => import('./commands/methods.ts'),
  },
  {
    name: 'doctor',
    summary: 'check this machine: features, right results, speed',
    load: () => import('./commands/doctor.ts'),
  },
  {
    name: 'start',
    summary: 'a tour on the bundled model',
    hidden: true,
    load: () => import('./commands/start.ts'),
  },
]

const EXAMPLES = `
Examples:
  lowbit quantize demo --bits 3 --out demo-3bit
  lowbit eval demo-3bit --reference demo
  lowbit generate demo-3bit "And it came to pass"
  lowbit quantize org/name --method rtn --grid nf4 --out name-nf4

A MODEL is a folder with config.json and safetensors files (dense, GPTQ or lowbit), the id of a
model on the Hugging Face hub (org/name), or demo: the small model that comes with lowbit.
`

export async function run(argv: readonly string[]): Promise<void> {
  const json = argv.includes('--json')
  const session = createSession(json)
  try {
    const program = await buildProgram(session, argv)
    await program.parseAsync(argv, { from: 'user' })
  } catch (error) {
    process.exitCode = fail(error, session)
  } finally {
    await session.close()
  }
}

async function buildProgram(session: Session, argv: readonly string[]): Promise<Command> {
  const program = new Command('lowbit')
    .description('Makes language models small and runs them.')
    .version(await version(), '-V, --version')
    .configureHelp({ helpWidth: Math.min(100, process.stdout.columns ?? 100) })
    .configureOutput({ outputError() {} })
    .showHelpAfterError(false)
    .exitOverride()
    .addHelpText('after', EXAMPLES)
  const asked = argv.find((word) => !word.startsWith('-'))
  const wanted = asked === 'help' ? argv[argv.indexOf('help') + 1] : asked
  for (const { name, summary, hidden = false, load } of COMMANDS) {
    const command = program.command(name, { hidden }).description(summary)
    if (name !== wanted) continue
    const { define } = await load()
    define(command, (action) => action(session), argv.slice(argv.indexOf(name) + 1))
  }
  return program
}

async function version(): Promise<string> {
  const { readFile } = await import('node:fs/promises')
  const file = await readFile(new URL('../package.json', import.meta.url), 'utf8')
  return (JSON.parse(file) as { version: string }).version
}

/** Says what went wrong; gives the exit code. */
function fail(error: unknown, session: Session): number {
  if (error instanceof CommanderError && error.exitCode === 0) return 0
  if (session.signal.aborted) {
    session.result({ error: { code: 'aborted', message: 'stopped by a signal' } })
    return 130
  }
  const report = error instanceof CommanderError ? misuse(error) : describeError(error)
  const { message } = report
  // Without a command the help has been shown: that says it all.
  if (error instanceof CommanderError && error.code === 'commander.help' && !session.json) return 2
  process.stderr.write(`${paint('red', `error: ${message}`, process.stderr)}\n`)
  if (process.env.LOWBIT_DEBUG === '1' && error instanceof Error) {
    process.stderr.write(`${error.stack}\n`)
    if (error.cause) process.stderr.write(`cause: ${String(error.cause)}\n`)
  }
  session.result({ error: report })
  return error instanceof CommanderError ? 2 : 1
}

/** Commander's own complaints: a flag that does not exist, a missing argument. */
function misuse(error: CommanderError): { code: string; message: string; option?: string } {
  const message = error.message.replace(/^error: /, '').replace(/\s*\n\s*/g, ' ')
  if (error.code === 'commander.help') {
    return { code: 'bad-usage', message: 'no command was given; see lowbit --help' }
  }
  const flag = /'[^']*?--([a-z-]+)/.exec(message)?.[1]
  return { code: 'bad-usage', message, ...(flag && { option: flag }) }
}
