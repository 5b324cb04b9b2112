/** Starts a runner's process and talks to it. */

import { type ChildProcess, fork } from 'node:child_process'
import path from 'node:path'
import { Skip } from '../peers.ts'
import type { Cold, Message, Result, Start, Task } from './protocol.ts'

export interface Running {
  readonly name: string
  readonly cold: Cold
  do(task: Task): Promise<Result>
  close(): Promise<void>
}

/** Nothing here takes that long, unless it hangs; filling a cache of thousands of tokens takes minutes. */
const PATIENCE = 1_200_000

export async function startRunner(name: string, file: string, start: Start): Promise<Running> {
  const script = path.join(import.meta.dirname, `${file}.ts`)
  const child = fork(script, [JSON.stringify(start)], {
    stdio: ['ignore', 2, 'inherit', 'ipc'],
    execArgv: ['--no-warnings'],
  })
  try {
    const message = await answer(child)
    if (message.kind !== 'ready') throw new Skip(`unexpected ${message.kind}`)
    return {
      name,
      cold: message.cold,
      async do(task) {
        const reply = answer(child)
        child.send(task)
        const message = await reply
        if (message.kind !== 'result') throw new Skip(`unexpected ${message.kind}`)
        return message.result
      },
      async close() {
        if (child.exitCode !== null) return
        const ended = new Promise((resolve) => child.once('exit', resolve))
        child.send('close')
        await ended
      },
    }
  } catch (error) {
    child.kill()
    throw error
  }
}

function answer(child: ChildProcess): Promise<Message> {
  return new Promise((resolve, reject) => {
    const done = (settle: () => void) => {
      clearTimeout(timer)
      child.off('message', onMessage)
      child.off('exit', onExit)
      settle()
    }
    const onMessage = (message: Message) =>
      done(() => (message.kind === 'failed' ? reject(new Skip(message.reason)) : resolve(message)))
    const onExit = (code: number | null, signal: string | null) =>
      done(() => reject(new Skip(`its process ended with ${signal ?? code}`)))
    const timer = setTimeout(() => {
      child.kill('SIGKILL')
      done(() => reject(new Skip('no answer for twenty minutes')))
    }, PATIENCE)
    child.once('message', onMessage)
    child.once('exit', onExit)
  })
}
