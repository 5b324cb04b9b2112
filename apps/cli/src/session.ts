/** What every command gets: where its words go, its devices, and the signal that stops it. */

import type { Kernels } from '@lowbit/core'
import type { DeviceFlags } from './flags/device.ts'
import { createProgress, type Progress, silent } from './terminal/progress.ts'
import { paint } from './terminal/style.ts'

export interface Session {
  readonly json: boolean
  /** Aborted by Ctrl-C. */
  readonly signal: AbortSignal
  /** For people, on standard output; nothing with `--json`. */
  print(text: string): void
  /** A remark on standard error. */
  note(text: string): void
  warn(text: string): void
  progress(label: string): Progress
  /** The one JSON object; nothing without `--json`. */
  result(value: object): void
  /** Kernels that live as long as the session. */
  kernels(flags: DeviceFlags, strict: boolean): Promise<Kernels>
  /** Ends with the session: files that a command which fails has left open. */
  holds(opened: { close(): Promise<void> }): void
  /** What Ctrl-C says. */
  onStop(text: string): void
  close(): Promise<void>
}

export function createSession(json: boolean): Session {
  const controller = new AbortController()
  const held: Kernels[] = []
  const opened: { close(): Promise<void> }[] = []
  let stopText = 'stopped'
  const stop = (): void => {
    if (controller.signal.aborted) process.exit(130)
    controller.abort()
    process.stderr.write(`${process.stderr.isTTY ? '\r\u001b[2K' : ''}${stopText}\n`)
  }
  process.on('SIGINT', stop)
  process.on('SIGTERM', stop)
  // A reader that has seen enough (`| head`) is no failure.
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code === 'EPIPE') process.exit(0)
    throw error
  })
  const say = (text: string): void => {
    process.stderr.write(`${text}\n`)
  }
  return {
    json,
    signal: controller.signal,
    print(text) {
      if (!json) process.stdout.write(text)
    },
    note: (text) => say(paint('dim', text, process.stderr)),
    warn: (text) => say(`${paint('yellow', 'warning:', process.stderr)} ${text}`),
    progress: (label) => (json && !process.stderr.isTTY ? silent : createProgress(label)),
    result(value) {
      if (json) process.stdout.write(`${JSON.stringify(value, null, 2)}\n`)
    },
    async kernels({ device, threads }, strict) {
      const { DEVICES } = await import('./plugins.ts')
      const kernels = await DEVICES[device]({ threads, strict })
      held.push(kernels)
      return kernels
    },
    holds: (one) => void opened.push(one),
    onStop(text) {
      stopText = text
    },
    async close() {
      process.off('SIGINT', stop)
      process.off('SIGTERM', stop)
      for (const kernels of held.splice(0)) kernels.dispose()
      // Most are closed long since.
      for (const one of opened.splice(0)) await one.close().catch(() => {})
    },
  }
}
