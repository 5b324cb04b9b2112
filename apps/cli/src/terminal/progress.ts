/** One live line on standard error: a bar, the share done, the time left, what is going on. */

import { stripVTControlCharacters } from 'node:util'
import { duration, secondsLeft } from '@lowbit/inspection'
import { paint } from './style.ts'

export interface Progress {
  /** `done` is the share of the whole, 0 … 1. */
  update(done: number, what: string): void
  /** A line above the bar; where there is no terminal, the only thing that is written. */
  log(line: string): void
  /** Takes the bar away. */
  end(): void
}

export interface ProgressStream {
  readonly isTTY?: boolean
  readonly columns?: number
  write(text: string): unknown
}

const CELLS = 24
const PARTS = ' ▏▎▍▌▋▊▉█'
/** A redraw for every event would cost more than some events. */
const REDRAW_MS = 50

/** A bar of `cells` characters with eighths of a cell. */
export function bar(done: number, cells = CELLS): string {
  const eighths = Math.round(Math.min(1, Math.max(0, done)) * cells * 8)
  const full = Math.floor(eighths / 8)
  const rest = full < cells ? PARTS[eighths % 8] : ''
  return '█'.repeat(full) + rest + ' '.repeat(Math.max(0, cells - full - 1))
}

export function createProgress(
  label: string,
  stream: ProgressStream = process.stderr,
  now: () => number = () => performance.now(),
): Progress {
  const live = stream.isTTY === true
  const started = now()
  let from: number | undefined
  let drawn = Number.NEGATIVE_INFINITY
  let shown = false
  const clear = (): void => {
    if (shown) stream.write('\r\u001b[2K')
    shown = false
  }
  return {
    update(done, what) {
      from ??= done
      if (!live || (now() - drawn < REDRAW_MS && done < 1)) return
      drawn = now()
      const left = secondsLeft((now() - started) / 1000, from, done)
      const share = `${Math.floor(done * 100)} %`.padStart(5)
      const time = left === undefined ? '' : `, ${duration(left)} left`
      const text = `${label} ${paint('cyan', bar(done), process.stderr)}${share}${time}  `
      const room = (stream.columns ?? 80) - stripVTControlCharacters(text).length - 1
      const tail = room > 3 ? what.slice(0, room) : ''
      stream.write(`\r\u001b[2K${text}${paint('dim', tail, process.stderr)}`)
      shown = true
    },
    log(line) {
      clear()
      stream.write(`${line}\n`)
      drawn = Number.NEGATIVE_INFINITY
    },
    end: clear,
  }
}

/** For `--json` without a terminal and for tests: says nothing. */
export const silent: Progress = { update() {}, log() {}, end() {} }
