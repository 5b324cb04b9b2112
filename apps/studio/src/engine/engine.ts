/** What runs in the workers: all of lowbit, behind calls whose arguments and results are plain data. */

import { LowbitError, type Matrix } from '@lowbit/core'
import { expose } from 'comlink'
import { config } from 'zod'
import { checkUp } from './checkup.ts'
import { answer, type ChatRequest, type CompareRequest, compareModels } from './compare.ts'
import { setBase } from './demo.ts'
import { inputPower } from './input-power.ts'
import { listJobs, readRequest, removeJob, storeJob } from './jobs.ts'
import { findCapabilities } from './kernels.ts'
import { assign, listCaches, listFormats, listMethods } from './methods.ts'
import { describe, openModel } from './models.ts'
import type { DeviceName, JobEvent, JobRequest, ModelFacts, ModelSource } from './protocol.ts'
import { runJob } from './quantize.ts'
import { archive, saveInto } from './take.ts'

// The page's policy forbids eval, which zod would try otherwise.
config({ jitless: true })

type OnProgress = (what: string, done: number) => void

/** Of the calls that are running: a short one may come in while a long one waits. */
const running = new Set<AbortController>()

/** Runs work that `stop` ends, and sends its errors as plain data. */
async function guarded<T>(work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const controller = new AbortController()
  running.add(controller)
  try {
    return await work(controller.signal)
  } catch (cause) {
    throw plain(cause, controller.signal.aborted)
  } finally {
    running.delete(controller)
  }
}

/** comlink passes on an error's name, message and stack; the code goes into the name. */
function plain(cause: unknown, stopped: boolean): Error {
  const error = new Error(cause instanceof Error ? cause.message : String(cause))
  error.name = stopped ? 'stopped' : codeOf(cause)
  if (cause instanceof Error) error.stack = cause.stack
  return error
}

function codeOf(cause: unknown): string {
  if (cause instanceof LowbitError) return cause.code
  if (cause instanceof Error && 'code' in cause && typeof cause.code === 'string') return cause.code
  return cause instanceof Error ? cause.name : 'error'
}

const engine = {
  start: (page: string): void => setBase(page),
  capabilities: () => guarded(findCapabilities),
  methods: () => listMethods(),
  formats: () => listFormats(),
  caches: () => listCaches(),
  open: (source: ModelSource) => guarded(() => describe(source)),
  assign: (model: Pick<ModelFacts, 'config' | 'allModules'>, recipe: string) =>
    guarded(async () => assign(model, recipe)),
  jobs: () => guarded(listJobs),
  removeJob: (id: string) => guarded(() => removeJob(id)),
  storeJob: (request: JobRequest) => guarded(() => storeJob(request)),
  request: (id: string) => guarded(() => readRequest(id)),
  quantize: (request: JobRequest, onEvent: (event: JobEvent) => void) =>
    guarded((signal) => runJob(request, onEvent, signal)),
  compare: (request: CompareRequest, onProgress: OnProgress) =>
    guarded((signal) => compareModels(request, onProgress, signal)),
  answer: (
    request: ChatRequest,
    onText: (tokens: readonly string[]) => void,
    onProgress: OnProgress,
  ) => guarded((signal) => answer(request, onText, onProgress, signal)),
  /** A matrix as it is stored, for pictures. */
  matrix: (source: ModelSource, module: string): Promise<Matrix> =>
    guarded(async () => {
      const { checkpoint } = await openModel(source)
      const matrix = await checkpoint.readMatrix(module)
      await checkpoint.close()
      return matrix
    }),
  inputPower: (source: ModelSource, module: string, text: string | undefined) =>
    guarded((signal) => inputPower(source, module, text, signal)),
  archive: (id: string, format: string, onProgress: OnProgress) =>
    guarded((signal) => archive(id, format, onProgress, signal)),
  saveInto: (
    id: string,
    format: string,
    target: FileSystemDirectoryHandle,
    onProgress: OnProgress,
  ) => guarded((signal) => saveInto(id, format, target, onProgress, signal)),
  checkUp: (device: DeviceName, onProgress: OnProgress) =>
    guarded((signal) => checkUp(device, onProgress, signal)),
  stop(): void {
    for (const controller of running) controller.abort(new Error('stopped'))
  },
}

export type Engine = typeof engine

expose(engine)
