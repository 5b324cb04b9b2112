/** A runner holds one model in a process of its own and does what it is told, one thing at a time. */

import { cpuSeconds, type Usage } from '../measure.ts'
import { firstLine } from '../peers.ts'

/** Prompt and new tokens of the generation; tokens of the long prompt. */
export const SHORT_PROMPT = 16
export const NEW_TOKENS = 128
export const LONG_PROMPT = 512

/** Tokens that are timed behind a full cache; it forgets them again. */
export const BEHIND_TOKENS = 24

export type RunTask = 'decode' | 'prompt'
export type Task = RunTask | 'behind'

export interface Result extends Usage {
  /** Tokens that were made or read in that time. */
  readonly tokens: number
  /** The first tokens that were made, for a glance at whether all say the same. */
  readonly text?: string
}

/** What a runner is started with. */
export interface Start {
  readonly model: string
  readonly threads: number
  /** For `behind`: tokens that are in the cache, and its name, as the runner knows it. */
  readonly behind?: { readonly tokens: number; readonly cache: string }
}

/** Until the first token of a cold process. */
export type Cold = Usage

export type Message =
  | { readonly kind: 'ready'; readonly cold: Cold }
  | { readonly kind: 'result'; readonly result: Result }
  | { readonly kind: 'failed'; readonly reason: string }

export interface Runner {
  /** NEW_TOKENS after the first one of a short prompt. */
  decode?(): Promise<Result>
  /** A long prompt, to its first token. */
  prompt?(): Promise<Result>
  /** BEHIND_TOKENS behind a full cache. */
  behind?(): Promise<Result>
  /** CPU seconds so far; the process's own unless told otherwise. */
  cpu?(): number
  close?(): Promise<void>
}

export function promptTokens(count: number): number[] {
  return Array.from({ length: count }, (_, i) => 1000 + ((i * 37) % 20_000))
}

/** Times from `begin` to `end`, in the process's CPU seconds or others. */
export function stopwatch(cpu: () => number = cpuSeconds) {
  let [wall, used] = [performance.now(), cpu()]
  return {
    begin() {
      wall = performance.now()
      used = cpu()
    },
    usage: (): Usage => ({ wall: (performance.now() - wall) / 1000, cpu: cpu() - used }),
  }
}

/** The main loop of a runner's process; `open` loads the model and makes a first token. */
export async function serve(open: (start: Start) => Promise<Runner>): Promise<void> {
  const send = (message: Message) => process.send?.(message)
  try {
    const runner = await open(JSON.parse(process.argv[2]))
    const wall = (Date.now() - performance.timeOrigin) / 1000
    send({ kind: 'ready', cold: { wall, cpu: runner.cpu?.() ?? cpuSeconds() } })
    process.on('message', async (task: Task | 'close') => {
      try {
        if (task === 'close') {
          await runner.close?.()
          process.exit(0)
        }
        const result = await runner[task]?.()
        if (!result) throw new Error(`it can't do ${task}`)
        send({ kind: 'result', result })
      } catch (error) {
        send({ kind: 'failed', reason: firstLine(error) })
      }
    })
  } catch (error) {
    send({ kind: 'failed', reason: firstLine(error) })
    process.disconnect?.()
  }
}
