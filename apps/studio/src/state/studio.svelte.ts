/** What the page knows: one object that the views read and change. */

import { secondsLeft } from '@lowbit/inspection'
import type { ModuleReport } from '@lowbit/pipeline'
import type { CompareRequest } from '../engine/compare.ts'
import { type Connection, connect, proxy } from '../engine/connect.ts'
import type {
  Assigned,
  Capabilities,
  Comparison,
  DeviceName,
  Job,
  JobEvent,
  JobRequest,
  MethodInfo,
  ModelFacts,
  ModelSource,
  PlainError,
} from '../engine/protocol.ts'
import { workOffline } from '../offline.ts'
import { freshDraft, fromYaml, type RecipeDraft, toYaml } from './recipe.ts'

export type Step = 'open' | 'recipe' | 'run' | 'see' | 'chat' | 'take'

export interface Progress {
  readonly what: string
  readonly done: number
  readonly secondsLeft?: number
}

export interface Running {
  readonly id: string
  readonly progress: Progress
  readonly modules: readonly (ModuleReport & { readonly seconds: number })[]
  readonly memoryBytes: number
  readonly resumed: number
  /** What is being done to it just now. */
  readonly ending?: 'pausing' | 'cancelling'
}

/** Milliseconds that a job gets to come to an end by itself. */
const PATIENCE = 10_000

class Studio {
  step = $state<Step>('open')
  capabilities = $state<Capabilities>()
  methods = $state<readonly MethodInfo[]>([])
  formats = $state<readonly string[]>([])
  caches = $state<readonly MethodInfo[]>([])
  jobs = $state<readonly Job[]>([])
  /** Folders that the server of this page offers. */
  served = $state<readonly string[]>([])

  model = $state<ModelFacts>()
  opening = $state<string>()
  error = $state<PlainError>()

  draft = $state<RecipeDraft>(freshDraft())
  yaml = $state(toYaml(freshDraft()))
  yamlError = $state<string>()
  assigned = $state<Assigned>({ modules: {}, needsText: false })
  /** Modules chosen on the map. */
  chosen = $state<ReadonlySet<string>>(new Set())

  text = $state<{ readonly name: string; readonly text: string }>()
  device = $state<DeviceName>('cpu')
  running = $state<Running>()
  result = $state<ModelFacts>()
  comparison = $state<Comparison>()
  measuring = $state<Progress>()

  #bench?: Promise<Connection>
  #job?: Connection

  /** The worker for everything but jobs, which have one of their own each. */
  bench(): Promise<Connection> {
    this.#bench ??= connect()
    this.#bench.catch(() => {
      this.#bench = undefined
    })
    return this.#bench
  }

  async start(): Promise<void> {
    await this.try(async () => {
      const { engine } = await this.bench()
      this.methods = await engine.methods()
      this.formats = await engine.formats()
      this.caches = await engine.caches()
      this.capabilities = await engine.capabilities()
      const { webgpu } = this.capabilities
      if ('adapter' in webgpu && !webgpu.software) this.device = 'webgpu'
      await this.refreshJobs()
    })
    const served = await servedModels()
    this.served = served ?? []
    // A server on this machine has the newest page itself.
    if (!served) await workOffline().catch(() => {})
  }

  async refreshJobs(): Promise<void> {
    const { engine } = await this.bench()
    this.jobs = await engine.jobs()
  }

  async open(source: ModelSource, what: string): Promise<void> {
    this.opening = what
    await this.try(async () => {
      const { engine } = await this.bench()
      this.model = await engine.open(source)
      this.result = undefined
      this.comparison = undefined
      this.chosen = new Set()
      await this.check()
    })
    this.opening = undefined
  }

  /** Takes a changed draft; the form and the text say the same from then on. */
  async edit(change: (draft: RecipeDraft) => void): Promise<void> {
    const draft = $state.snapshot(this.draft) as RecipeDraft
    change(draft)
    this.draft = draft
    this.yaml = toYaml(draft)
    await this.check()
  }

  async editYaml(text: string): Promise<void> {
    this.yaml = text
    const read = fromYaml(text)
    if ('why' in read) {
      this.yamlError = read.why
      return
    }
    this.draft = read
    await this.check()
  }

  /** Asks the plugins what the recipe comes to for this model. */
  async check(): Promise<void> {
    this.yamlError = undefined
    if (!this.model) return
    const { config, allModules } = $state.snapshot(this.model) as ModelFacts
    const { yaml } = this
    const { engine } = await this.bench()
    const [assigned, why] = await engine.assign({ config, allModules }, yaml).then(
      (found) => [found, undefined] as const,
      (cause: Error) => [{ modules: {}, needsText: false }, cause.message] as const,
    )
    // A later edit asks again.
    if (yaml !== this.yaml) return
    this.assigned = assigned
    this.yamlError = why
  }

  async quantize(id: string): Promise<void> {
    const { model } = this
    if (!model) return
    const request: JobRequest = {
      ...{ id, source: plainSource(model.source), recipe: this.yaml, device: this.device },
      ...(this.text && { text: this.text.text }),
    }
    await this.run(request, true)
  }

  /** Goes on with a job that was paused, or whose tab was closed. */
  async resume(id: string): Promise<void> {
    await this.try(async () => {
      const { engine } = await this.bench()
      const stored = await engine.request(id)
      const source = stored.source ?? (this.model && plainSource(this.model.source))
      if (!source) {
        throw Object.assign(
          new Error('the model of this job was dropped here as files: open it again, then go on'),
          { name: 'open-again' },
        )
      }
      if (source.kind === 'directory' && !(await mayRead(source.handle))) return
      if (stored.source) await this.open(source, 'opening the model')
      if (!this.error) await this.run({ ...stored, source }, false)
    })
  }

  async run(request: JobRequest, fresh: boolean): Promise<void> {
    const { id } = request
    this.result = undefined
    this.comparison = undefined
    this.running = {
      ...{ id, modules: [], memoryBytes: 0, resumed: 0 },
      progress: { what: 'starting', done: 0 },
    }
    this.step = 'run'
    await this.try(async () => {
      const connection = await connect()
      this.#job = connection
      try {
        if (fresh) await connection.engine.storeJob(request)
        const done = connection.engine.quantize(request, proxy(watchJob(this)))
        await Promise.race([done, connection.ended])
        this.result = await connection.engine.open({ kind: 'job', id })
        this.step = 'see'
      } finally {
        this.#job = undefined
        connection.close()
      }
    })
    const cancelled = this.running?.ending === 'cancelling'
    this.running = undefined
    const { error } = this
    await this.try(async () => {
      if (cancelled) await (await this.bench()).engine.removeJob(id)
      await this.refreshJobs()
    })
    // What went wrong with the job is what people want to know.
    this.error = error ?? this.error
  }

  /** What is finished stays; cancelling takes it away too. */
  async end(how: 'pausing' | 'cancelling'): Promise<void> {
    if (!this.running || !this.#job) return
    this.running = { ...this.running, ending: how }
    // One that is deep in a product hears it at its end; what is done lies in the journal, so it may be ended too.
    await this.#job.stop(PATIENCE).catch(() => {})
  }

  async openResult(id: string): Promise<void> {
    await this.try(async () => {
      const { engine } = await this.bench()
      this.comparison = undefined
      this.result = await engine.open({ kind: 'job', id })
      const { source } = await engine.request(id)
      if (
        !this.model &&
        source &&
        (source.kind !== 'directory' || (await mayRead(source.handle)))
      ) {
        this.model = await engine.open(source)
        await this.check()
      }
      this.step = 'see'
    })
  }

  async removeJob(id: string): Promise<void> {
    await this.try(async () => {
      await (await this.bench()).engine.removeJob(id)
      if (this.result?.name === id) this.result = undefined
      await this.refreshJobs()
    })
  }

  async compare(settings: Pick<CompareRequest, 'windows' | 'context'>): Promise<void> {
    const { model, result } = this
    if (!model || !result) return
    this.comparison = undefined
    this.measuring = { what: 'loading', done: 0 }
    await this.try(async () => {
      const { engine } = await this.bench()
      this.comparison = await engine.compare(
        {
          original: opened(model),
          quantized: opened(result),
          device: this.device,
          ...(this.text && { text: this.text.text }),
          ...settings,
        },
        proxy((what, done) => {
          this.measuring = { what, done }
        }),
      )
    })
    this.measuring = undefined
  }

  async stopBench(): Promise<void> {
    await (await this.bench()).stop()
  }

  /** Runs work; what it throws is shown, except that somebody stopped it. */
  async try(work: () => Promise<void>): Promise<void> {
    this.error = undefined
    try {
      await work()
    } catch (cause) {
      const { name, message } = cause as Error
      if (name !== 'stopped' && !this.running?.ending) this.error = { code: name, message }
    }
  }
}

/** What a worker needs to load a model, or to know that it has. */
export const opened = ({ opening, source }: ModelFacts) => ({
  opening,
  source: plainSource(source),
})

/** A proxy of Svelte's can't be sent to a worker. */
export const plainSource = (source: ModelSource): ModelSource =>
  source.kind === 'files' || source.kind === 'directory'
    ? { ...source, ...(source.kind === 'files' && { files: [...source.files] }) }
    : { ...source }

function watchJob(studio: Studio): (event: JobEvent) => void {
  const started = performance.now()
  let from: number | undefined
  return (event) => {
    const { running } = studio
    if (!running) return
    switch (event.kind) {
      case 'loading':
        studio.running = { ...running, progress: { what: event.what, done: 0 } }
        break
      case 'start':
        studio.running = { ...running, resumed: event.resumed }
        break
      case 'module':
        studio.running = {
          ...running,
          modules: [...running.modules, { ...event.report, seconds: event.seconds }],
        }
        break
      case 'memory':
        studio.running = { ...running, memoryBytes: Math.max(running.memoryBytes, event.bytes) }
        break
      case 'step': {
        from ??= event.done
        const left = secondsLeft((performance.now() - started) / 1000, from, event.done)
        studio.running = {
          ...running,
          progress: {
            ...{ what: event.what, done: event.done },
            ...(left !== undefined && { secondsLeft: left }),
          },
        }
      }
    }
  }
}

/** A handle that was kept needs a new permission in a new session. */
async function mayRead(handle: FileSystemDirectoryHandle): Promise<boolean> {
  const asked = handle as FileSystemDirectoryHandle & {
    requestPermission?(options: { mode: 'read' }): Promise<PermissionState>
  }
  return !asked.requestPermission || (await asked.requestPermission({ mode: 'read' })) === 'granted'
}

/** `lowbit studio FOLDER` offers folders; a static host has none. */
async function servedModels(): Promise<readonly string[] | undefined> {
  try {
    const response = await fetch(new URL('models/index.json', document.baseURI))
    if (!response.ok || !response.headers.get('content-type')?.includes('json')) return undefined
    return (await response.json()) as string[]
  } catch {
    return undefined
  }
}

export const studio = new Studio()
