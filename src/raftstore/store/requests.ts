/** Requests in the forms the store loop meets them in. */
import { unreachable } from '../../base/assert.ts';
import type { RegionError } from '../../codec/region-error.ts';
import type { RegionStep } from '../../meta/heartbeat.ts';
import type { AdminRequestBody, PeerMsg } from '../msg.ts';

/** A step of an operator as a request to the region's leader. */
export function bodyOfStep(step: RegionStep): AdminRequestBody {
  switch (step.type) {
    case 'change-peer':
      return { type: 'change-peer', changes: [step.change] };
    case 'change-peer-joint':
      return { type: 'change-peer', changes: step.changes };
    case 'transfer-leader':
      return { type: 'transfer-leader', peer: step.peer };
    case 'merge':
      return { type: 'merge', target: step.target };
    case 'split':
      return step.keys.length === 0 ? { type: 'half-split' } : { type: 'split', keys: step.keys };
    default:
      return unreachable(step);
  }
}

/** Answers a request inside a message that no peer will handle. */
export function answerLost(msg: PeerMsg, error: RegionError): void {
  switch (msg.type) {
    case 'write':
      msg.request.respond({ type: 'refused', error });
      return;
    case 'read':
      msg.request.respond({ type: 'refused', error });
      return;
    case 'admin':
      msg.request.respond({ type: 'refused', error });
      return;
    default:
  }
}
